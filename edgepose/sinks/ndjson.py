class NdjsonSink:
    def __init__(self, s):
        self.s = s

    def publish(self, m):
        from edgepose import messages

        self.s.write(messages.encode(m) + b"\n")
        self.s.flush()

    def close(self):
        pass
