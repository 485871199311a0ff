"""The live page: a web server that is an MQTT subscriber like any other."""
