    while (position < length && text[position] == ' ')
        position++;
    return position < length ? position : length;
}
