"""What FLARE 2024 lets a case use before it costs rank: 45 s, and 4 GB of GPU memory."""

TIME_LIMIT_S = 45.0
VRAM_LIMIT_MIB = 4096.0
