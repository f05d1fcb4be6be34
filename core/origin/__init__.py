"""Where a job's result comes from: contents of its inputs, the code that runs, libraries, the device.

Two jobs with the same key make the same result, so the outputs of one can stand for those of the other. No
torch: the worker finds the key before it starts the job's process.
"""
