// The search takes signs such as "-", "+" and ":" for operators, so that an option like `--refine`
// would find nothing: here they only part words. What asks is the search's worker, which is a frame
// where pages are read as files; the script that brings the frame stands before this one.
{
  const post = Worker.prototype.postMessage
  Worker.prototype.postMessage = function (message, ...more) {
    const asks = message && message.type === 2 && typeof message.data === "string"
    const data = asks && message.data.replace(/[-+:~^*]+/g, " ").trim()
    return post.call(this, asks ? { ...message, data } : message, ...more)
  }
}
