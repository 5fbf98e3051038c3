import http.client
import ssl


def api_connection(host, debug=False):
    """An HTTPSConnection to a host; with debug, its set_debuglevel(1) is called."""
