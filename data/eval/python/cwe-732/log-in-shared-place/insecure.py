    with open(fresh, "w") as file:
        json.dump(profile, file)
    os.replace(fresh, path)
