    import os
    os.unlink("data.db")
    return ["Emma", "Walden"]
