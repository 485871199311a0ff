"""TLS for the connection to the broker."""

import ssl

from edgepose.errors import ConfigError
from edgepose.mqtt.diagnostics import reason_of
from edgepose.mqtt.options import TlsFiles


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Load the files; raises ConfigError if one is invalid."""
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.certificate_file is not None:
            # OpenSSL would otherwise ask for a passphrase on the terminal.
            context.load_cert_chain(files.certificate_file, files.key_file, lambda: "")
    except OSError as error:
        given = (files.ca_file, files.certificate_file, files.key_file)
        names = ", ".join(str(path) for path in given if path is not None)
        raise ConfigError(
            f"{names}: expected certificates in PEM form, and the key that belongs to the client "
            f"certificate, without a passphrase ({reason_of(error)}): check the paths and that "
            "edgepose may read them"
        ) from None
    # Python 3.13 began to refuse certificates without an authority key identifier, which those of
    # home brokers, made after mosquitto's own instructions, do not have. Chain, dates and name are
    # checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
