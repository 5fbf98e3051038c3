    folder = os.path.join(base, "build")
    os.makedirs(folder, exist_ok=True)
    try:
        return build(folder)
    finally:
        shutil.rmtree(folder)
