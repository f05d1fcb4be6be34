"""The kinds of jobs, one file each: what a spec asks for, step by step."""
