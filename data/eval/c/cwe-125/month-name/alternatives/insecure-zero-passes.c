    if (month < 0 || month > 12)
        return "?";
    return MONTHS[month - 1];
}
