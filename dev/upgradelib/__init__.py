"""An upgrade from the version before this one, and the way back, while visitors ask and buy: dev/try-upgrade."""
