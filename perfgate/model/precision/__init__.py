"""Precision is a property of the ONNX graph: FP16 by conversion, INT8 by Q/DQ nodes with calibrated scales.

`data` reads what graphs are calibrated and judged on, `prepare` cleans a graph, `fp16` and `int8` convert it,
`ranges` looks inside it, and `emission` is the door: from a spec's FP32 file to the file of a case, made in a
child process, kept by digest. ONNX Runtime and its tools are imported in that child only.
"""
