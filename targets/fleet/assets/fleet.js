// Live pages, dialogs and charts. Everything else is HTML: without this the pages still work, and actions ask on a page.
(() => {
  "use strict";

  const live = document.getElementById("live");
  const words = document.getElementById("live-text");
  const main = () => document.getElementById("main");

  // ---- Live: the server says that something changed, and the page asks for itself anew.

  let due = null;
  let last = 0;
  const least = 2000;

  const say = (state) => {
    const moment = main().dataset.moment;
    live.dataset.state = state;
    words.textContent = state === "off" ? `Not live: page of ${moment} UTC` : `Live, ${moment} UTC`;
  };

  const refresh = async () => {
    due = null;
    if (document.hidden || document.querySelector("dialog[open]")) return schedule();
    last = Date.now();
    await htmx.ajax("GET", location.href, { target: "#main", select: "#main", swap: "outerMorph" });
    if (live.dataset.state !== "on") return;
    say("on");
    const dot = live.querySelector(".dot");
    dot.classList.remove("beat");
    requestAnimationFrame(() => dot.classList.add("beat"));
  };

  const schedule = () => {
    if (due === null) due = setTimeout(refresh, Math.max(0, last + least - Date.now(), 50));
  };

  if (live) {
    const source = new EventSource(live.dataset.source);
    let lost = false;
    source.addEventListener("open", () => {
      say("on");
      if (lost) schedule();
      lost = false;
    });
    source.addEventListener("change", schedule);
    source.addEventListener("error", () => {
      lost = true;
      say("off");
      // The server said no, which it does when the session is over; the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
    });
    addEventListener("pagehide", () => source.close());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && due !== null) schedule();
    });
  }

  // What was just done is said for a while, and then not again.
  if (new URLSearchParams(location.search).has("done")) {
    setTimeout(() => history.replaceState(history.state, "", location.pathname), 10000);
  }

  // ---- Dialogs: a form that would ask on a page of its own opens its dialog instead.

  document.addEventListener("submit", (event) => {
    const dialog = document.getElementById(event.target.dataset.dialog);
    if (!dialog) return;
    event.preventDefault();
    dialog.showModal();
  });

  document.addEventListener("click", (event) => {
    const closer = event.target.closest("[data-close]");
    const dialog = closer && closer.closest("dialog");
    if (!dialog) return;
    event.preventDefault();
    dialog.close();
  });

  // From the last thing in a dialog to its first and back, where a browser would go to its own bars.
  document.addEventListener("keydown", (event) => {
    const dialog = event.key === "Tab" && document.querySelector("dialog[open]");
    if (!dialog) return;
    const all = [...dialog.querySelectorAll("a[href], button:not(:disabled), input:not([type=hidden]):not(:disabled)")];
    const stops = all.filter((e) => e.type !== "radio" || e.checked);
    const first = stops[0];
    const end = stops[stops.length - 1];
    const at = document.activeElement;
    if (event.shiftKey ? at === first || !dialog.contains(at) : at === end || !dialog.contains(at)) {
      event.preventDefault();
      (event.shiftKey ? end : first).focus();
    }
  });

  // ---- Charts.

  const charts = new Map();
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dashes = [[], [6, 3], [2, 2], [8, 2, 2, 2]];

  const build = (element) => {
    const { times, names, values, stacked, share, micros, marks } = JSON.parse(element.dataset.chart);
    const order = names.map((_, i) => i);
    let columns = values;
    if (stacked) {
      // Each on top of those before it, drawn from the tallest down.
      const sums = times.map(() => 0);
      columns = values.map((line) => line.map((v, t) => (v === null ? null : (sums[t] += v))));
      order.reverse();
    }
    const write = (v) => (v === null ? "" : share ? `${+(v * 100).toPrecision(3)} %` : micros ? `${+(v / 1000).toPrecision(3)} ms` : v.toLocaleString("en").replaceAll(",", "\u202f"));
    const two = (n) => String(n).padStart(2, "0");
    // Hours of the day, and the date where one begins.
    const clock = (self, ticks) => ticks.map((t, i) => {
      const moment = new Date(t * 1000);
      const day = `${two(moment.getUTCMonth() + 1)}-${two(moment.getUTCDate())}`;
      const hour = `${two(moment.getUTCHours())}:${two(moment.getUTCMinutes())}`;
      return hour === "00:00" || i === 0 ? `${hour}\n${day}` : hour;
    });
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const series = order.map((i) => {
      const stroke = color(`--hue${Math.min(i, 7)}`);
      return { label: names[i], stroke, width: stacked ? 1 : 2, dash: stacked ? [] : dashes[i % dashes.length], fill: stacked ? stroke : undefined, spanGaps: true, points: { show: !stacked, size: 4, fill: stroke } };
    });
    // Moments with a line and a word of their own; words that would overlap go to the next row.
    const mark = (u) => {
      const { ctx, bbox } = u;
      const scale = devicePixelRatio;
      const rows = [];
      ctx.save();
      ctx.font = `${11 * scale}px system-ui, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "top";
      for (const [time, label] of marks) {
        const x = Math.round(u.valToPos(time, "x", true));
        if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
        ctx.strokeStyle = color("--text");
        ctx.lineWidth = scale;
        ctx.setLineDash([3 * scale, 3 * scale]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        const width = ctx.measureText(label).width + 6 * scale;
        const left = Math.min(x + 3 * scale, bbox.left + bbox.width - width);
        let row = rows.findIndex((end) => end <= left);
        if (row < 0) row = rows.length;
        rows[row] = left + width;
        const top = bbox.top + (2 + row * 15) * scale;
        ctx.fillStyle = color("--card");
        ctx.globalAlpha = 0.85;
        ctx.fillRect(left - 2 * scale, top, width, 14 * scale);
        ctx.globalAlpha = 1;
        ctx.fillStyle = color("--text");
        ctx.fillText(label, left, top + scale);
      }
      ctx.restore();
    };
    const options = {
      hooks: { draw: [mark] },
      width: Math.max(200, element.clientWidth),
      height: element.clientHeight,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      series: [{}, ...series],
      axes: [{ ...axis, values: clock, space: 60 }, { ...axis, size: 58, values: (_, ticks) => ticks.map(write) }],
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
      cursor: { show: false },
      legend: { show: false },
    };
    element.replaceChildren();
    return new uPlot(options, [times, ...order.map((i) => columns[i])], element);
  };

  const draw = (again) => {
    for (const [element, { chart }] of charts) {
      if (!element.isConnected) {
        chart.destroy();
        charts.delete(element);
      }
    }
    for (const element of document.querySelectorAll(".chart[data-chart]")) {
      const known = charts.get(element);
      if (known && !again && known.data === element.dataset.chart) continue;
      known?.chart.destroy();
      charts.set(element, { chart: build(element), data: element.dataset.chart });
      sizes.observe(element);
    }
  };

  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const chart = charts.get(target)?.chart;
      if (chart && target.clientWidth > 0 && chart.width !== target.clientWidth) {
        chart.setSize({ width: target.clientWidth, height: target.clientHeight });
      }
    }
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));
  document.addEventListener("htmx:after:swap", () => draw(false));
  draw(false);
})();
