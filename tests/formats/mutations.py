"""Any JSON that may stand in a field."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

values_of: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(
        ["", "<null>", "0", "-1", "1e9", "9" * 30, "1791633600", "2026-11-01T01:30:00", "+1;tag=", "%", "%00"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
