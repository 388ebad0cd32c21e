"""Writing LLVM in Python: functions, their control flow, the module that they make."""
