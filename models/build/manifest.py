"""Write manifest.json and src/table.rs from the records that the model scripts left."""

import json

import numpy as np

from artifact import ARTIFACTS, digest, replace

MODELS = ARTIFACTS.parent
LIMIT = 2_000_000


def short(value):
    """The shortest decimal that reads back as the same f32."""
    return float(str(np.float32(value)))


def read():
    records = [json.loads(path.read_text()) for path in (MODELS / "build" / "records").glob("*.json")]
    order = ["digits", "kws", "vibration"]
    return sorted(records, key=lambda r: (order.index(r["name"]), int(r["version"])))


def entry(record):
    record = dict(record)
    for key in ("reference", "float_reference", "input_scale", "input_offset"):
        record[key] = short(record[key])
    for key in ("onnx", "golden", "test"):
        record[key] = dict(file=record[key], **digest(ARTIFACTS / record[key]))
    return record


def rust(text):
    return json.dumps(text, ensure_ascii=False)


def table(records):
    names = list(dict.fromkeys(r["name"] for r in records))
    lines = ["//! Written by models/build/manifest.py from the records of a build; do not edit.", ""]
    lines += ["use crate::{Artifact, Metric};", ""]
    for name in names:
        lines.append(f'static {name.upper()}_TEST: &[u8] = include_bytes!("../artifacts/{name}.test.npz");')
    lines += ["", "/// Every artifact: models by name, their versions in rising order.", "pub const ALL: &[Artifact] = &["]
    for r in records:
        lines += [
            "    Artifact {",
            f"        name: {rust(r['name'])},",
            f"        version: {rust(r['version'])},",
            f"        title: {rust(r['title'])},",
            f'        onnx: include_bytes!("../artifacts/{r["onnx"]["file"]}"),',
            f'        golden: include_bytes!("../artifacts/{r["golden"]["file"]}"),',
            f"        test: {r['name'].upper()}_TEST,",
            f"        input_scale: {r['input_scale']!r},",
            f"        input_offset: {r['input_offset']!r},",
            f"        labels: &[{', '.join(rust(label) for label in r['labels'])}],",
            f"        metric: Metric::{r['metric'].capitalize()},",
            f"        reference: {r['reference']!r},",
            f"        float_reference: {r['float_reference']!r},",
            f"        source: {rust(r['source'])},",
            f"        licence: {rust(r['licence'])},",
            "    },",
        ]
    lines += ["];", ""]
    return "\n".join(lines)


def main():
    records = [entry(r) for r in read()]
    # One artifact a line: a test without a JSON reader looks for the figures there.
    body = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in records)
    replace(MODELS / "manifest.json", f'{{"artifacts": [\n{body}\n]}}\n'.encode())
    replace(MODELS / "src" / "table.rs", table(records).encode())
    total = 0
    print("| model | ONNX bytes | parameters | metric | float | int8 | whole test, float | whole test, int8 |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for r in records:
        total += r["onnx"]["bytes"] + r["golden"]["bytes"]
        w = r["whole_test"]
        print(
            f"| {r['name']} {r['version']} | {r['onnx']['bytes']:,} | {r['parameters']:,} | {r['metric']} "
            f"| {r['float_reference']:.4f} | {r['reference']:.4f} | {w['float']:.4f} | {w['int8']:.4f} |"
        )
    total += sum({r["name"]: r["test"]["bytes"] for r in records}.values())
    print(f"\nartifacts together: {total:,} bytes")
    if total >= LIMIT:
        raise SystemExit(f"more than {LIMIT:,} bytes; commit a smaller test slice")


if __name__ == "__main__":
    main()
