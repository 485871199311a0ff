"""A fake of the display library that picamera2 imports and a daemon never uses."""


class _Names:
    def __getattr__(self, name: str) -> str:
        return name


PixelFormat = _Names()
PlaneType = _Names()
