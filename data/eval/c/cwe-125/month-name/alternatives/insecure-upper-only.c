    if (month > 12)
        return "?";
    return MONTHS[month - 1];
}
