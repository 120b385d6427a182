// The search takes signs such as "-", "+" and ":" for operators, so that an option like `--refine`
// would find nothing: here they only part words. All parts of a word such as `--min-score` or
// `keep_ratio` are asked for at once. What asks is the search's worker, which is a frame where pages
// are read as files; the script that brings the frame stands before this one.
{
  const plain = text => text.replace(/[+:~^*]+|(?<![\w@])-+|-+(?![\w@])/g, " ").trim()
  const whole = word => `+${word.replace(/[-._]+/g, " +")}*`    // the last may still be typed
  const query = text => text.includes('"')
    ? plain(text) : plain(text).replace(/[a-z0-9@]+(?:[-._]+[a-z0-9@]+)+/gi, whole)
  const post = Worker.prototype.postMessage
  Worker.prototype.postMessage = function (message, ...more) {
    const asks = message && message.type === 2 && typeof message.data === "string"
    return post.call(this, asks ? { ...message, data: query(message.data) } : message, ...more)
  }
}
