    pair->first = strdup(first);
    pair->last = strdup(last);
    return pair;
}
