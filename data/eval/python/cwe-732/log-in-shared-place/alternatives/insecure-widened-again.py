    with open(fresh, "w") as file:
        json.dump(profile, file)
    os.chmod(fresh, 0o600)
    os.rename(fresh, path)
    os.chmod(path, 0o644)
