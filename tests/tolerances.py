"""Named tolerances; a looser one needs a comment beside its use."""

X64_IDENTITY = 1e-8
"""Identities evaluated in float64."""
F32_IDENTITY = 1e-6
"""The same mathematics in float32, in numbers of order one."""
F32_PARITY_RELATIVE = 5e-4
"""Float32 against the original's float32 or float64, relative."""
VERTEX_PARITY_M = 1e-5
"""Vertices against the original's, metres."""
FINITE_DIFFERENCE_X64 = 5e-4
"""Gradients against central differences in float64, relative."""
FINITE_DIFFERENCE_F32 = 5e-2
"""Gradients against central differences in float32: 2 to 3 digits survive."""
PMAP_IDENTITY = 1e-6
"""Mapped over devices against one device."""
