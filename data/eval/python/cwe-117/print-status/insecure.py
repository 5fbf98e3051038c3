    print(f"received {filename} ({size} bytes)")
