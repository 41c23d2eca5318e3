"""Numbers with units, as pages and pictures show them."""

MINUTE, HOUR = 60.0, 3600.0


def duration(seconds: float | None, virtual: bool = False) -> str:
    """Returns a time in the unit that suits it; a dash for None.

    Args:
        seconds: the time.
        virtual: whether it passed on the clock of a simulation, which the text then says.
    """
    if seconds is None:
        return "-"
    kind = "virtual " * virtual
    if 0 < seconds < 1e-3:
        return f"{1e6 * seconds:.3g} {kind}µs"
    if 0 < seconds < 1:
        return f"{1e3 * seconds:.3g} {kind}ms"
    scale, unit = time_unit(seconds)
    return f"{seconds / scale:.3g} {kind}{unit}"


def time_unit(seconds: float) -> tuple[float, str]:
    """Returns the seconds of the unit that suits a span of time, and the unit's name."""
    if seconds < 5 * MINUTE:
        return 1.0, "s"
    return (MINUTE, "min") if seconds < 3 * HOUR else (HOUR, "h")


def since_begin(unit: str, virtual: bool) -> str:
    """Returns the label of an axis of time."""
    return f"Time since the run began ({'virtual ' * virtual}{unit})"


def percent(share: float | None, whole: float = 1.0) -> str:
    """Returns a share of a whole in percent; a dash where there is none."""
    return "-" if share is None or not whole else f"{100 * share / whole:.1f} %"


def rounded(value: object) -> str:
    """Returns a value of a table with three digits where it is a fraction; a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
