    with open(path, "w", newline="") as out:
        os.fchmod(out.fileno(), 0o600)
        csv.writer(out).writerows(patients)
