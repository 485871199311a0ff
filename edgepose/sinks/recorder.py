class RecorderSink:
    pass
