"""What `edgepose setup` finds and tries: cameras and brokers, and the configuration it writes."""
