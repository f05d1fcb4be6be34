"""What every long loop of a job may call: report, ask whether to stop, find inputs, publish outputs."""
