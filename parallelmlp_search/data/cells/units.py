"""Currencies, multipliers, units of measurement and of time, and spellings of missing values."""

from __future__ import annotations

import unicodedata

MISSING = frozenset(
    [
        "", "-", "--", "---", "\u2013", "\u2014", ".", "..", "...", "?", "??", "*", "na", "n/a", "n.a.",
        "n.a", "#n/a", "#na", "#n/d", "#null!", "#value!", "#div/0!", "#ref!", "nan", "-nan", "nat", "null",
        "none", "nil", "missing", "unknown", "unavailable", "undefined", "not available", "not applicable",
        "not known", "no data", "tbd", "tba", "k.a.", "k. a.", "keine angabe", "(null)", "(none)",
        "(missing)", "(unknown)", "(blank)", "(empty)", "<na>", "<null>", "\\n", "[null]",
    ]
)  # fmt: skip
"""Spellings of missing values, in lower case, in columns of numbers, dates, lists or texts."""

_NAMES = (
    "usd eur gbp jpy cny rmb inr brl rub krw chf cad aud nzd sek nok dkk pln czk huf ron bgn try mxn ars clp "
    "cop pen zar egp ngn kes ghs mad aed sar ils qar kwd thb vnd idr myr php sgd hkd twd pkr bdt lkr uah kzt "
    "btc eth us$ a$ c$ r$ s$ hk$ nz$ mx$ au$ ca$ kr kr. zł zl kč kc lei rs rs. fr fr. sfr sfr. rp dm tl "
    "dollar dollars euro euros pound pounds yen francs rupees"
)
CURRENCIES = frozenset(_NAMES.split())
"""Currency codes, words and compound signs in lower case; single signs such as € are known to Unicode."""

MULTIPLIERS = {
    "k": 1e3, "thousand": 1e3, "tsd": 1e3, "tsd.": 1e3, "m": 1e6, "mm": 1e6, "mn": 1e6, "mio": 1e6,
    "mio.": 1e6, "mil": 1e6, "million": 1e6, "millions": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9, "mrd": 1e9,
    "mrd.": 1e9,
    "t": 1e12, "tn": 1e12, "trillion": 1e12,
}  # fmt: skip
"""Multipliers of money and counts, in lower case."""

PERCENTS = {
    "%": 1e-2,
    "percent": 1e-2,
    "pct": 1e-2,
    "pct.": 1e-2,
    "٪": 1e-2,
    "‰": 1e-3,
    "bps": 1e-4,
    "bp": 1e-4,
}

_INCH, _POUND = 0.0254, 0.45359237
DIMENSIONS = {
    "length": {
        "km": 1e3, "m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "um": 1e-6, "nm": 1e-9, "mi": 1609.344,
        "mile": 1609.344, "miles": 1609.344, "yd": 0.9144, "yards": 0.9144, "ft": 0.3048, "feet": 0.3048,
        "foot": 0.3048, "'": 0.3048, "in": _INCH, "in.": _INCH, "inch": _INCH, "inches": _INCH, '"': _INCH,
        "″": _INCH, "meter": 1.0, "meters": 1.0, "metres": 1.0,
    },
    "mass": {
        "t": 1e3, "kg": 1.0, "kgs": 1.0, "g": 1e-3, "gr": 1e-3, "gm": 1e-3, "mg": 1e-6, "µg": 1e-9,
        "lb": _POUND, "lbs": _POUND, "lb.": _POUND, "lbs.": _POUND, "pounds": _POUND, "oz": _POUND / 16,
        "st": 14 * _POUND, "tons": 1e3, "tonnes": 1e3,
    },
    "area": {"m2": 1.0, "m²": 1.0, "qm": 1.0, "sqm": 1.0, "km2": 1e6, "km²": 1e6, "ha": 1e4, "cm²": 1e-4,
             "cm2": 1e-4, "sqft": 0.09290304, "sq ft": 0.09290304, "sq. ft.": 0.09290304, "ft²": 0.09290304,
             "ft2": 0.09290304, "acres": 4046.8564224, "acre": 4046.8564224, "ac": 4046.8564224},
    "volume": {"l": 1.0, "dl": 0.1, "cl": 1e-2, "ml": 1e-3, "hl": 100.0, "m3": 1e3, "m³": 1e3, "cc": 1e-3,
               "gal": 3.785411784, "liters": 1.0, "litres": 1.0, "liter": 1.0},
    "information": {"b": 1.0, "bytes": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
                    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40},
    "frequency": {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9},
    "power": {"w": 1.0, "kw": 1e3, "mw": 1e6, "gw": 1e9, "hp": 745.7, "ps": 735.49875, "bhp": 745.7},
    "energy": {"j": 1.0, "kj": 1e3, "mj": 1e6, "wh": 3.6e3, "kwh": 3.6e6, "mwh": 3.6e9, "cal": 4.184,
               "kcal": 4184.0},
    "charge": {"mah": 1e-3, "ah": 1.0},
    "voltage": {"mv": 1e-3, "v": 1.0, "kv": 1e3},
    "current": {"ma": 1e-3, "a": 1.0},
    "pressure": {"pa": 1.0, "hpa": 100.0, "kpa": 1e3, "mbar": 100.0, "bar": 1e5, "psi": 6894.757},
    "speed": {"km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "m/s": 1.0, "mph": 0.44704, "kn": 0.514444,
              "knots": 0.514444},
    "resolution": {"mp": 1.0, "megapixels": 1.0},
    "angle": {"°": 1.0, "deg": 1.0, "degrees": 1.0},
    "temperature": {"°c": 1.0, "c": 1.0, "celsius": 1.0},
    "fahrenheit": {"°f": 1.0, "f": 1.0, "fahrenheit": 1.0},
}  # fmt: skip
"""Units of each dimension in lower case, and their factors."""

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "sec.", "second", "seconds", "sek", "sekunden"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "microseconds"), 1e-6),
    **dict.fromkeys(("m", "min", "mins", "min.", "minute", "minutes", "minuten"), _MINUTE),
    **dict.fromkeys(("h", "hr", "hrs", "hr.", "hrs.", "hour", "hours", "std", "std.", "stunden"), _HOUR),
    **dict.fromkeys(("d", "day", "days", "tag", "tage"), _DAY),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks", "wochen"), 7 * _DAY),
    **dict.fromkeys(("mo", "mos", "mo.", "mon", "mth", "mths", "month", "months", "monate"), 30.4375 * _DAY),
    **dict.fromkeys(("y", "yr", "yrs", "yr.", "yrs.", "year", "years", "jahre"), 365.25 * _DAY),
}
"""Seconds of each unit of time in lower case."""


def is_missing(text: str) -> bool:
    """True for a text that stands for a missing value."""
    return text.strip().lower() in MISSING


def is_currency(text: str) -> bool:
    """True for a sign, code or word of a currency."""
    return text.lower() in CURRENCIES or (len(text) == 1 and unicodedata.category(text) == "Sc")


def dimension_of(unit: str) -> str | None:
    """Return the dimension of a unit in lower case, or None if it is not known."""
    return next((name for name, units in DIMENSIONS.items() if unit in units), None)
