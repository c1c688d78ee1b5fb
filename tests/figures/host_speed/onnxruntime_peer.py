"""ONNX Runtime, one thread: prints "ready", then answers each line of milliseconds with a JSON list of microseconds."""
import json, sys, time
import numpy as np
import onnxruntime as ort

model, vectors, int8 = sys.argv[1:4]
ort.set_default_logger_severity(3)
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
if int8 == "1":
    options.add_session_config_entry("session.qdqisint8allowed", "1")
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
arrays = np.load(vectors)
binding = session.io_binding()
keep = [ort.OrtValue.ortvalue_from_numpy(arrays[f"in0_{i}"]) for i in range(len(session.get_inputs()))]
for port, value in zip(session.get_inputs(), keep):
    binding.bind_ortvalue_input(port.name, value)
for port in session.get_outputs():
    binding.bind_output(port.name)
session.run_with_iobinding(binding)
print("ready", flush=True)
for line in sys.stdin:
    end = time.perf_counter_ns() + float(line) * 1e6
    times = []
    while len(times) < 3 or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        session.run_with_iobinding(binding)
        times.append((time.perf_counter_ns() - start) / 1e3)
    print(json.dumps(times), flush=True)
