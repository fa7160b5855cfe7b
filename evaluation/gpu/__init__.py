"""GPU memory over time, sampled on the host through NVML while a submission runs.

devices.py finds the GPU, poller.py samples it in a process of its own, sampler.py starts and
watches that process, curve.py turns the samples into numbers, curve_file.py keeps them, and
processes.py says who else was on the GPU.
"""
