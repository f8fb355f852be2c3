"""Who trains which segment, and on which machine. Knows segments, not studies."""
