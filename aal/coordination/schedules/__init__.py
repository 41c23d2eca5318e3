"""Schedules: who may do what next. A file for each; `mode` in a config names one."""
