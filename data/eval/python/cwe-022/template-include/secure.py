        name = os.path.basename(name)
        with open(os.path.join(folder, name)) as part:
            return part.read()
    return re.sub(r"\{include ([^}]+)\}", content, text)
