"""Writes the ONNX project's backend node tests to a folder, one folder a case.

Newer `onnx` packages make these cases when asked and carry no files of them. The layout is that of the older packages:
CASE/model.onnx, CASE/test_data_set_N/{input,output}_M.pb, and CASE/data.json where a case has its own tolerance.

    python3 export.py [FOLDER]

Prints the folder. Without FOLDER it is one in the system's folder for temporary files, made once per version.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

import onnx
from onnx.backend.test import cmd_tools
from onnx.backend.test.loader import load_model_tests


def write(folder: pathlib.Path) -> None:
    warnings.simplefilter("ignore")  # cases on purpose divide by zero
    cases = load_model_tests(kind="node")
    cmd_tools.model_test.collect_testcases = lambda: cases
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        cmd_tools.generate_data(argparse.Namespace(output=scratch))
        nodes = pathlib.Path(scratch, "node")
        for case in cases:
            if (case.rtol, case.atol) != (1e-3, 1e-7):
                tolerance = json.dumps({"rtol": case.rtol, "atol": case.atol})
                (nodes / case.name / "data.json").write_text(tolerance)
        (nodes / "onnx_version.txt").write_text(onnx.__version__ + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(nodes, folder)


def main() -> None:
    default = pathlib.Path(tempfile.gettempdir(), f"dunlin-onnx-nodes-{onnx.__version__}")
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    if len(sys.argv) > 1 or not (folder / "onnx_version.txt").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(folder)
    print(folder)


if __name__ == "__main__":
    main()
