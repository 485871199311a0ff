"""TLS for the connection to the broker."""

import ssl
from typing import Final

from edgepose.errors import SecretFileError
from edgepose.mqtt.diagnostics import reason_of
from edgepose.mqtt.options import TlsFiles
from edgepose.util.files import read_regular_file

MAX_FILE_BYTES: Final = 1 << 20


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Load the files; raises SecretFileError if one is missing or invalid."""
    given = (files.ca_file, files.certificate_file, files.key_file)
    paths = [path for path in given if path is not None]
    for path in paths:
        try:
            # OpenSSL would wait for a pipe, and read a device without end.
            read_regular_file(path, MAX_FILE_BYTES)
        except OSError as error:
            raise SecretFileError(
                f"{path}: the certificate or key cannot be read ({error.strerror}): check the path "
                "and that the user of edgepose may read it"
            ) from None
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.certificate_file is not None:
            # OpenSSL would otherwise ask for a passphrase on the terminal.
            context.load_cert_chain(files.certificate_file, files.key_file, lambda: "")
    except OSError as error:
        raise SecretFileError(
            f"{', '.join(map(str, paths))}: expected certificates in PEM form, and the key that "
            "belongs to the client certificate, without a passphrase, got other content "
            f"({reason_of(error)})"
        ) from None
    # Python 3.13 began to refuse certificates without an authority key identifier, which those of
    # home brokers, made after mosquitto's own instructions, do not have. Chain, dates and name are
    # checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
