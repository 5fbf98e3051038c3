    safe = filename.encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")
    print(f"received {safe} ({size} bytes)")
