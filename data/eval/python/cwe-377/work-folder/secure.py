    folder = tempfile.mkdtemp(dir=base)
    try:
        return build(folder)
    finally:
        shutil.rmtree(folder)
