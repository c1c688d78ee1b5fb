// What has to hold for every page in a browser. `cargo test -p dunlin-fleet` starts a server and runs this:
//
//   BASE=http://127.0.0.1:PORT TOKEN=... ROLLOUT=... DEVICE=... [OTHER_TOKEN=...] node check.mjs [folder for pictures]
//
// ROLLOUT names one that is running. OTHER_TOKEN is of a tenant with nothing in it. With ONLY, names of pages with commas between,
// these are looked at and nothing is pressed.

import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import http from "node:http";
import { chromium } from "playwright-core";

const { BASE, TOKEN, OTHER_TOKEN, ROLLOUT, DEVICE, ONLY, CHROMIUM = "/usr/bin/chromium" } = process.env;
const pictures = process.argv[2];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const SIZES = { wide: { width: 1280, height: 900 }, phone: { width: 360, height: 740 } };
const SCHEMES = ["light", "dark"];
const MOST_SCRIPT = 60 * 1024;
const PAGES = {
  health: "/",
  rollouts: "/rollouts",
  rollout: `/rollouts/${ROLLOUT}`,
  confirm: `/rollouts/${ROLLOUT}/rollback`,
  drift: "/drift",
  devices: "/devices",
  silent: "/devices?state=silent",
  device: `/devices/${DEVICE}`,
  flags: "/flags",
  flag: "/flags/edit",
  stop: "/serving/stop",
  alerts: "/alerts",
  audit: "/audit",
  missing: "/rollouts/no-such-rollout",
};

if (ONLY) Object.keys(PAGES).filter((name) => !ONLY.split(",").includes(name)).forEach((name) => delete PAGES[name]);

let failed = 0;
let passed = 0;
const check = (name, holds, detail = "") => {
  if (holds) passed += 1;
  else {
    failed += 1;
    console.log(`FAILED ${name}${detail ? `: ${detail}` : ""}`);
  }
};

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// A page that tells of every error and everything that the policy stopped.
const open = async (context, known = () => false) => {
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (m) => {
    if (["error", "warning"].includes(m.type()) && !known(m)) page.complaints.push(m.text());
  });
  page.on("pageerror", (e) => page.complaints.push(e.message));
  await page.exposeFunction("policyStopped", (what) => page.complaints.push(`policy: ${what}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (e) => window.policyStopped(`${e.violatedDirective} ${e.blockedURI}`));
  });
  return page;
};

const context = async (options = {}) => {
  const made = await browser.newContext({ viewport: SIZES.wide, ...options });
  made.setDefaultTimeout(15000);
  return made;
};

const signIn = async (made, token = TOKEN) => {
  const page = await open(made);
  await page.goto(`${BASE}/login`);
  await page.fill("#token", token);
  await page.click("button");
  await page.waitForURL(`${BASE}/`);
  return page;
};

const audited = async (page, name) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  check(`${name}: accessible`, grave.length === 0, grave.map((v) => `${v.id} ${v.nodes[0].html}`).join("; "));
};

// What somebody can act on and see. Of radio buttons the chosen one is a stop, and arrows lead to the others.
const ACTIONS = "a[href], button:not(:disabled), input:not([type=hidden]):not(:disabled), select, textarea, summary, [tabindex='0']";

const walk = async (page, name) => {
  // From the top, wherever the page put the focus.
  await page.evaluate(() => {
    document.documentElement.tabIndex = -1;
    document.documentElement.focus();
    document.documentElement.removeAttribute("tabindex");
  });
  const wanted = await page.evaluate((actions) => {
    // Found anew at each stop: the page may renew itself meanwhile.
    window.stops = () => [...document.querySelectorAll(actions)].filter((e) => e.checkVisibility() && !e.closest("dialog:not([open])") && (e.type !== "radio" || e.checked));
    return window.stops().length;
  }, ACTIONS);
  const stops = [];
  let unmarked = "";
  for (let i = 0; i < wanted + 3 && i < 400; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      if (!e || e === document.body) return null;
      const style = getComputedStyle(e);
      return { stop: window.stops().indexOf(e), ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, html: e.outerHTML.slice(0, 120) };
    });
    if (at === null || (stops.length > 0 && at.stop === stops[0])) break;
    stops.push(at.stop);
    if (!at.ring) unmarked ||= at.html;
  }
  check(`${name}: every action by keyboard`, new Set(stops).size === wanted, `${new Set(stops).size} of ${wanted}`);
  check(`${name}: focus in the order of the page`, stops.every((s, i) => s === i), stops.join(" "));
  check(`${name}: focus can be seen`, unmarked === "", unmarked);
};

// ---- Signing in

{
  const made = await context();
  const page = await open(made, (m) => m.text().includes("401"));
  await page.goto(`${BASE}/rollouts`);
  check("without a session there is only the sign-in page", new URL(page.url()).pathname === "/login", page.url());
  await audited(page, "login");
  await walk(page, "login");
  await page.fill("#token", "dunlin_wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  check("a wrong token is refused in words", (await page.textContent("[role=alert]")).includes("not known"));
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${BASE}/rollouts`);
  check("after signing in one is where one wanted to be", true);
  const [cookie] = await made.cookies();
  check("the cookie is for the server alone", cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
  check("the cookie is not the token", !cookie.value.includes(TOKEN));
  check("no script reads the cookie", (await page.evaluate(() => document.cookie)) === "");
  check("login: no complaints", page.complaints.length === 0, page.complaints.join("; "));
  await page.click(".account button");
  await page.waitForURL(`${BASE}/login`);
  await page.goto(`${BASE}/`);
  check("after signing out there is no page", new URL(page.url()).pathname === "/login");
  const answer = await made.request.get(`${BASE}/rollouts`, { headers: { cookie: `${cookie.name}=${cookie.value}` }, maxRedirects: 0 });
  check("a session that was ended is nobody's", answer.status() === 303, `${answer.status()}`);
  await made.close();
}

// ---- Every page, wide and narrow, light and dark

for (const [size, viewport] of Object.entries(SIZES)) {
  for (const scheme of SCHEMES) {
    const made = await context({ viewport, colorScheme: scheme });
    await signIn(made);
    for (const [name, address] of Object.entries(PAGES)) {
      const about = `${name} ${size} ${scheme}`;
      const page = await open(made, (m) => name === "missing" && m.text().includes("404"));
      const answer = await page.goto(`${BASE}${address}`);
      check(`${about}: is there`, answer.status() === (name === "missing" ? 404 : 200), `${answer.status()}`);
      if (name !== "missing") await page.waitForFunction(() => document.getElementById("live").dataset.state === "on");
      const charts = await page.$$eval(".chart[data-chart]", (all) => all.filter((c) => !c.querySelector("canvas")).length);
      check(`${about}: charts are drawn`, charts === 0);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      check(`${about}: fits its width`, over <= 0, `${over} too many`);
      const small = await page.$$eval("button, .button, input:not([type=hidden]):not([type=radio]), select, nav a", (all) =>
        all.filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 24).map((e) => e.outerHTML.slice(0, 80)));
      check(`${about}: targets can be hit`, small.length === 0, small.join("; "));
      await audited(page, about);
      if (scheme === "light") await walk(page, about);
      check(`${about}: no complaints`, page.complaints.length === 0, page.complaints.join("; "));
      if (pictures) {
        mkdirSync(pictures, { recursive: true });
        await page.screenshot({ path: `${pictures}/${name}-${size}-${scheme}.png`, fullPage: true });
      }
      await page.close();
    }
    await made.close();
  }
}

const end = async () => {
  await browser.close();
  console.log(`${passed} checks passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
};
if (ONLY) await end();

if (OTHER_TOKEN) {
  const made = await context();
  await signIn(made, OTHER_TOKEN);
  for (const [name, address] of Object.entries({ health: "/", rollouts: "/rollouts", drift: "/drift", devices: "/devices", flags: "/flags", alerts: "/alerts", audit: "/audit" })) {
    const page = await open(made);
    await page.goto(`${BASE}${address}`);
    await audited(page, `${name} of a new tenant`);
    check(`${name} of a new tenant: no complaints`, page.complaints.length === 0, page.complaints.join("; "));
    if (name === "health") {
      const rates = await page.$$eval(".big.none", (all) => all.length);
      check("rates of nothing are not zero", rates > 0);
    }
    await page.close();
  }
  const page = await open(made, (m) => m.text().includes("404"));
  const answer = await page.goto(`${BASE}${PAGES.rollout}`);
  check("another tenant's rollout is not there", answer.status() === 404, `${answer.status()}`);
  await made.close();
}

// ---- Size, policy, motion, no scripts

{
  const made = await context({ reducedMotion: "reduce" });
  const page = await signIn(made);
  const scripts = await page.$$eval("script[src]", (all) => all.map((s) => s.src));
  let bytes = 0;
  for (const src of scripts) bytes += gzipSync(await (await made.request.get(src)).body(), { level: 9 }).length;
  check("scripts are small", scripts.length > 0 && bytes < MOST_SCRIPT, `${bytes} bytes`);
  console.log(`scripts: ${bytes} bytes gzipped, of ${MOST_SCRIPT}`);
  const { "content-security-policy": policy = "" } = (await made.request.get(`${BASE}/`)).headers();
  check("the policy is strict", policy.includes("default-src 'none'") && !/unsafe|nonce|\*|https?:/.test(policy), policy);
  await page.waitForFunction(() => document.getElementById("live").dataset.state === "on");
  check("nothing moves for who does not want it", (await page.evaluate(() => document.getAnimations().length)) === 0);
  await page.keyboard.press("Tab");
  const skip = await page.evaluate(() => document.activeElement.className);
  check("the first stop skips to the content", skip === "skip", skip);
  await page.keyboard.press("Enter");
  check("and does", (await page.evaluate(() => document.activeElement.id)) === "main");
  await made.close();

  const bare = await context({ javaScriptEnabled: false });
  const plain = await signIn(bare);
  await plain.goto(`${BASE}/rollouts/${ROLLOUT}`);
  await plain.click("form[data-dialog=ask-rollback] button");
  check("without scripts an action asks on a page", new URL(plain.url()).pathname === `/rollouts/${ROLLOUT}/rollback`, plain.url());
  await bare.close();
}

// ---- The kill switch: without scripts, with what has to be typed, and a banner on every page

{
  const bare = await context({ javaScriptEnabled: false });
  const page = await signIn(bare);
  const tenant = (await page.textContent(".account .who")).trim().split(", ").pop();
  const stopped = async () => (await page.$$(".stopped")).length;
  check("nothing is stopped", (await stopped()) === 0);
  await page.click("a.danger");
  check("the red button asks on a page", new URL(page.url()).pathname === "/serving/stop", page.url());
  await page.fill("#typed", "something else");
  await page.click("form[action='/serving/stop'] button.danger");
  check("the wrong word stops nothing", (await page.textContent("main, body")).includes("Nothing was stopped"));
  await page.goto(`${BASE}/serving/stop`);
  await page.fill("#reason", "frames are dark");
  await page.fill("#typed", tenant);
  await page.click("form[action='/serving/stop'] button.danger");
  await page.waitForURL((url) => url.pathname === "/");
  check("what was done is said", (await page.textContent(".notice")).includes("stopped"));

  // In front of somebody else, on every page, without a reload.
  const made = await context();
  const other = await signIn(made);
  for (const address of ["/", "/rollouts", "/drift", "/devices", "/flags", "/audit", "/alerts"]) {
    await other.goto(`${BASE}${address}`);
    const text = (await other.textContent(".stopped")) ?? "";
    check(`${address}: the banner says what, who and why`, text.includes("All inference is stopped") && text.includes("frames are dark"), text);
  }
  await audited(other, "a page with the banner");
  if (pictures) {
    for (const [size, viewport] of Object.entries(SIZES)) {
      for (const colorScheme of SCHEMES) {
        await other.setViewportSize(viewport);
        await other.emulateMedia({ colorScheme });
        await other.goto(`${BASE}/`);
        await other.screenshot({ path: `${pictures}/stopped-${size}-${colorScheme}.png`, fullPage: true });
      }
    }
    await other.setViewportSize(SIZES.wide);
  }
  await other.goto(`${BASE}/`);
  await other.waitForFunction(() => document.getElementById("live").dataset.state === "on");
  await other.evaluate(() => (window.same = true));

  await page.click(".stopped a.button");
  await page.click("form[action='/serving/resume'] button");
  await page.waitForURL((url) => url.pathname === "/");
  check("the banner is gone", (await stopped()) === 0);
  await other.waitForFunction(() => !document.querySelector(".stopped"));
  check("and before others' eyes", await other.evaluate(() => window.same === true));
  check("stop: no complaints", other.complaints.length === 0, other.complaints.join("; "));
  await made.close();

  // A flag is previewed before it is saved.
  await page.goto(`${BASE}/flags/edit`);
  await page.fill("#key", "browser-test");
  await page.fill("#rules", "dunlin.model = none -> on");
  check("nothing is saved unseen", (await page.$$("button[formaction]")).length === 0);
  await page.click("form.ask button.primary");
  check("the preview counts devices", (await page.$$("table.cards tbody tr")).length >= 3);
  await page.click("button[formaction='/flags/save']");
  await page.waitForURL((url) => url.pathname === "/flags");
  check("the flag is saved", (await page.textContent(".notice")).includes("Saved"));
  await bare.close();
}

// ---- The page of a rollout says which it is, why, and when it is decided

if (PAGES.rollout) {
  const made = await context();
  const page = await signIn(made);
  await page.goto(`${BASE}/rollouts/${ROLLOUT}`);
  check("the rollout's own name is its title", (await page.textContent("h1")).trim() === ROLLOUT, await page.textContent("h1"));
  check("and the window's", (await page.title()).startsWith(`${ROLLOUT} (`), await page.title());
  const why = await page.textContent("#status-line");
  check("a line says why", why.startsWith("Running stage ") && why.includes("planned devices updated") && why.includes("decision"), why);
  const next = await page.textContent("#next-decision");
  check("the next decision has a time, or is due", next.includes("UTC (in ") || next.includes("due now"), next);
  check("no verdict of a running rollout is not a start", !(await page.textContent("main")).includes("it has not started"));
  check("evidence has its limit", / of 2\.0/.test(await page.textContent("#guardrails ~ table")));
  await page.click("#glossary summary");
  check("words are explained", (await page.textContent("#glossary")).includes("decimal logarithm of an e-value"));
  const marks = await page.$$eval(".chart[data-chart]", (all) => all.map((c) => JSON.parse(c.dataset.chart).marks.length));
  check("charts have marks", marks.length > 0 && marks.every((n) => n > 0), marks.join(" "));
  const order = await page.$$eval(".actions button", (all) => all.map((b) => b.textContent));
  check("pause comes first", order[0].startsWith("Pause"), order.join(" "));
  await page.goto(`${BASE}/rollouts`);
  await page.click(`a[href="/rollouts/${ROLLOUT}/pause"]`);
  check("a list leads to pause in one step", (await page.textContent("main")).includes(`Pause ${ROLLOUT} (`), page.url());
  check("which asks for a reason", (await page.$("#ask-pause-reason")) !== null);
  await page.goto(`${BASE}/rollouts`);
  await page.selectOption("#phase", "Paused");
  await page.waitForFunction(() => document.getElementById("results").textContent.includes("0 rollouts"));
  check("a filter by state", true);
  check("rollout: no complaints", page.complaints.length === 0, page.complaints.join("; "));
  await made.close();
}

// ---- A filter without a reload

{
  const made = await context();
  const page = await signIn(made);
  await page.goto(`${BASE}/devices`);
  await page.evaluate(() => (window.same = true));
  await page.fill("#q", DEVICE);
  await page.waitForFunction((id) => {
    const rows = [...document.querySelectorAll("#results tbody tr")];
    return rows.length === 1 && rows[0].textContent.includes(id);
  }, DEVICE);
  check("filtering needs no reload", await page.evaluate(() => window.same === true));
  check("the filter is in the address", page.url().includes(`q=${DEVICE}`), page.url());
  check("typing goes on where it was", (await page.evaluate(() => document.activeElement.id)) === "q");
  check("filter: no complaints", page.complaints.length === 0, page.complaints.join("; "));
  await made.close();
}

// ---- A connection that is lost is said

{
  const made = await context();
  await made.route("**/live", (route) => route.abort());
  const page = await open(made, (m) => m.text().includes("ERR_FAILED"));
  await page.goto(`${BASE}/login`);
  await page.fill("#token", TOKEN);
  await page.click("button");
  await page.waitForFunction(() => document.getElementById("live")?.dataset.state === "off");
  check("a page that is not live says so", (await page.textContent("#live-text")).startsWith("Not live"));
  await made.close();
}

// ---- Others' pages cannot press buttons

{
  const made = await context();
  const page = await signIn(made);
  const [cookie] = await made.cookies();
  await page.goto(`${BASE}/rollouts/${ROLLOUT}`);
  const csrf = await page.getAttribute("dialog input[name=csrf]", "value");
  const press = (headers, body) =>
    new Promise((done, fail) => {
      const request = http.request(`${BASE}/rollouts/${ROLLOUT}/pause`, { method: "POST", headers: { cookie: `${cookie.name}=${cookie.value}`, "content-type": "application/x-www-form-urlencoded", ...headers } }, (r) => {
        r.resume();
        done(r.statusCode);
      });
      request.on("error", fail);
      request.end(body);
    });
  check("from another origin: refused", (await press({ origin: "https://evil.example" }, `csrf=${csrf}`)) === 409);
  check("from another site: refused", (await press({ "sec-fetch-site": "cross-site", origin: BASE }, `csrf=${csrf}`)) === 409);
  check("without the form's token: refused", (await press({ "sec-fetch-site": "same-origin" }, "csrf=")) === 409);
  check("with another's token: refused", (await press({ "sec-fetch-site": "same-origin" }, `csrf=${"0".repeat(64)}`)) === 409);
  await page.reload();
  check("and nothing was paused", (await page.textContent(".title .badge")).trim() === "running", await page.textContent(".title .badge"));
  await made.close();
}

// ---- Pause and roll back, by keyboard, while somebody else looks on

{
  const made = await context();
  const page = await signIn(made);
  const address = `${BASE}/rollouts/${ROLLOUT}`;
  await page.goto(address);

  const other = await open(made);
  await other.goto(address);
  await other.waitForFunction(() => document.getElementById("live").dataset.state === "on");
  await other.evaluate(() => (window.same = true));
  await other.focus("nav a[href='/drift']");

  const onlooker = await open(made);
  await onlooker.goto(`${BASE}/`);
  await onlooker.waitForFunction(() => document.getElementById("live").dataset.state === "on");
  const details = await onlooker.$("#table-version");
  if (details) await onlooker.click("#table-version summary");

  // The keyboard alone: open, look around, change one's mind.
  await page.focus("form[data-dialog=ask-pause] button");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#ask-pause[open]");
  check("the dialog has the focus", await page.evaluate(() => document.activeElement.closest("dialog") !== null));
  await audited(page, "dialog");
  if (pictures) await page.screenshot({ path: `${pictures}/dialog-wide-light.png` });
  for (const key of ["Tab", "Shift+Tab"]) {
    let inside = true;
    for (let i = 0; i < 8; i++) {
      await page.keyboard.press(key);
      inside &&= await page.evaluate(() => document.activeElement.closest("dialog") !== null);
    }
    check(`the dialog keeps the focus, ${key}`, inside);
  }
  await page.keyboard.press("Escape");
  check("Escape closes it", (await page.$("dialog[open]")) === null);
  check("and the focus is back", await page.evaluate(() => document.activeElement.closest("form")?.dataset.dialog === "ask-pause"));

  // And now really.
  await page.keyboard.press("Enter");
  await page.waitForSelector("#ask-pause[open]");
  const reason = "frames are dark at gate 7";
  await page.fill("#ask-pause-reason", reason);
  await page.keyboard.press("Enter");
  await page.waitForURL(/done=paused/);
  check("pausing says what was done", (await page.textContent(".notice")).includes("Paused"));
  check("it is paused", (await page.textContent(".title .badge")).includes("paused"));
  const line = await page.textContent("#status-line");
  check("the page says by whom and why", line.includes(reason) && / by /.test(line), line);

  await other.waitForFunction(() => document.querySelector(".title .badge").textContent.includes("paused"), null, { timeout: 15000 });
  check("who looks on sees it without a reload", await other.evaluate(() => window.same === true));
  check("and keeps the focus", (await other.evaluate(() => document.activeElement.getAttribute("href"))) === "/drift");
  check("and may resume it", (await other.$("form[data-dialog=ask-resume]")) !== null);
  await onlooker.waitForFunction(() => document.querySelector("main").textContent.includes("paused"));
  check("so does who looks at the fleet", true);
  if (details) check("what was unfolded stays so", await onlooker.evaluate(() => document.getElementById("table-version").open));

  // A button that came with the live page has its dialog too.
  await page.goto(address);
  await page.click("form[data-dialog=ask-rollback] button");
  await page.waitForSelector("#ask-rollback[open]");
  await page.fill("#ask-rollback-reason", reason);
  await page.click("#ask-rollback button.danger");
  await page.waitForURL(/done=reverted/);
  check("it is rolled back", (await page.textContent(".title .badge")).includes("rolled back"));
  check("the rollback has its reason", (await page.textContent("#status-line")).includes(reason));
  await other.waitForFunction(() => document.querySelector(".title .badge").textContent.includes("rolled back"));
  check("who looks on sees that too", await other.evaluate(() => window.same === true));
  check("there is nothing left to pause", (await other.$("form[data-dialog=ask-pause]")) === null);

  await page.goto(`${BASE}/audit`);
  const log = await page.textContent("main");
  check("the audit log has both and why", log.includes("pause") && (log.includes("rollback") || log.includes("abort")) && log.includes(reason));
  for (const [name, p] of Object.entries({ page, other, onlooker })) check(`flow, ${name}: no complaints`, p.complaints.length === 0, p.complaints.join("; "));
  await made.close();
}

await end();
