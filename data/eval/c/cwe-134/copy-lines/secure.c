        fputs("> ", to);
        fputs(line, to);
        count++;
    }
    return count;
}
