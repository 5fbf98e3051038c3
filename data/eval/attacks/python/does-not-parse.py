    return (
