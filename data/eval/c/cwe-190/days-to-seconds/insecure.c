    *result = days * SECONDS_PER_DAY + seconds;
    return true;
}
