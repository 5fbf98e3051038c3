    with open(target + ".part", "w") as out:
        out.writelines(lines)
    os.replace(target + ".part", target)
