    sys.stdout.write(" ".join(["received", *filename.split(), f"({size} bytes)"]) + "\n")
