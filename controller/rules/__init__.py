"""The rules: functions ``(state, request, now) -> plan``."""
