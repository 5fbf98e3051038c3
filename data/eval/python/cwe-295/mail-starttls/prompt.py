import ssl


def secure_login(smtp, user, password):
    """Start TLS on an SMTP connection (smtplib's interface) and log in."""
