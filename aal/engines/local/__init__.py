"""The engine `local`: roles as processes of one machine."""
