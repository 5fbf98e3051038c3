    with open(path, "w", newline="") as out:
        csv.writer(out).writerows(patients)
    os.chmod(path, 0o666)
