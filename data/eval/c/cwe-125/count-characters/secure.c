        if (length > size - i)
            break;
        count++;
        i += length;
    }
    return count;
}
