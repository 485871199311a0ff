"""TLS for the connection to the broker."""

import ssl

from edgepose.errors import ConfigError
from edgepose.mqtt.options import TlsFiles


def tls_context(files: TlsFiles | None) -> ssl.SSLContext:
    """Load the files; raises ConfigError with the invalid one."""
    files = files or TlsFiles()
    try:
        context = ssl.create_default_context(
            cafile=None if files.ca_file is None else str(files.ca_file)
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{files.ca_file}: expected certificate authorities in PEM form ({_reason(error)}): "
            "check the path and that edgepose may read it"
        ) from None
    # Python 3.13 began to refuse certificates without an authority key identifier, which those of
    # home brokers, made after mosquitto's own instructions, do not have. Chain, dates and name are
    # checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate_file is not None:
        try:
            context.load_cert_chain(files.certificate_file, files.key_file, _no_passphrase)
        except (OSError, ssl.SSLError) as error:
            names = f"{files.certificate_file}"
            if files.key_file is not None:
                names += f", {files.key_file}"
            raise ConfigError(
                f"{names}: expected a client certificate and its key in PEM form, without a "
                f"passphrase ({_reason(error)}): check the paths, that edgepose may read them and "
                "that they belong together"
            ) from None
    return context


def _no_passphrase() -> str:
    """Return no passphrase; OpenSSL would otherwise ask for one on the terminal."""
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return error.strerror or str(error)
