        result += f"<option{mark}>{city}</option>"
    return result
