    with open(path, "w", newline="") as out:
        csv.writer(out).writerows(patients)
